"""Who makes room for a newcomer where all places are taken: the crowd that has the most of them."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from sojourn.net.networks import crowd_of, network_of

Present = TypeVar("Present", bound=Hashable)


def makes_room(newcomer: str, present: Mapping[Present, str], spare: Callable[[Present], bool]) -> Present | None:
    """Which of those present goes, so that a newcomer from this address comes in; None: nobody does.

    `present`: the oldest first, with the addresses from which they come. `spare`: who may be sent away.

    Whoever rents a network has all addresses of it, so that crowds are counted first, and the places within a crowd
    then. From the crowd that has the most, and more than the newcomer's has, the oldest of its most crowded place goes.
    A newcomer of that very crowd finds room if its own place has fewer than the most crowded one there.
    """
    crowds = Counter(map(crowd_of, present.values()))
    places = Counter(map(network_of, present.values()))
    going = {each: address for each, address in present.items() if spare(each)}
    largest = max(map(crowd_of, going.values()), key=crowds.__getitem__, default="")
    own, least = crowd_of(newcomer), 0
    if crowds[largest] <= crowds[own]:
        largest, least = own, places[network_of(newcomer)]
    among = {each: network_of(address) for each, address in going.items() if crowd_of(address) == largest}
    place = max(among.values(), key=places.__getitem__, default="")
    if places[place] <= least:
        return None
    return next(each for each, network in among.items() if network == place)
