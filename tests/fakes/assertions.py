"""A store of used assertions in memory."""

from sojourn.errors.oauth import InvalidGrant


class FakeAssertionStore:
    """As UsedTable, but that it forgets nothing."""

    def __init__(self):
        self.used = set()

    async def claim(self, assertions, now):
        del now
        if any(each.digest in self.used for each in assertions):
            raise InvalidGrant("the assertion is not good: it was used before: get a new one for each request")
        self.used |= {each.digest for each in assertions}
