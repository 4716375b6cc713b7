"""The main job, shown: both ends of a pipe on this machine, four requests, one large file."""
