"""The times of rows, such as those that are forgotten: as spans, apart from each other (runtime/forgotten_times.py)."""

from sqlalchemy import ColumnElement, Connection, func, or_, select


def spans_of(
    connection: Connection, time: ColumnElement[int], those: ColumnElement[bool], gap: int
) -> list[tuple[int, int]]:
    """The spans of those rows' times, with no more than `gap` between two of one span."""
    each = select(time.label("time"), func.lag(time).over(order_by=time).label("before")).where(those).subquery()
    begins = or_(each.c.before.is_(None), each.c.time - each.c.before > gap)
    rows = connection.execute(select(each.c.time, each.c.before).where(begins).order_by(each.c.time)).all()
    latest = connection.execute(select(func.max(time)).where(those)).scalar()
    lasts = [*(row.before for row in rows[1:]), latest] if rows else []
    return [(row.time, last) for row, last in zip(rows, lasts, strict=True)]
