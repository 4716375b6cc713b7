"""An event handler: name it `shop.Shop` in /etc/restpipe/ROLE.toml, with this folder as its path."""

from restpipe import EventHandler


class Shop(EventHandler):
    """Methods are named by verb and noun."""

    def get_stock(self, ctx, post_data, article):
        """GET .../stock//4711"""
        return {"article": article, "stock": 12}

    async def post_order_line(self, ctx, post_data, urgent="no"):
        """POST .../order/line?urgent=yes"""
        _mime_type, data = post_data
        ctx.logger.info("%s orders %s", ctx.peer, data)
        return "text/plain", 0, f"{ctx.peer} ordered {data['count']}, urgent: {urgent}"
