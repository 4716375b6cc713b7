"""Of all that run under gunicorn: one worker, no log of requests, no socket but the one it binds."""

workers = 1
worker_class = "uvicorn_worker.UvicornWorker"
loglevel = "warning"
control_socket_disable = True
