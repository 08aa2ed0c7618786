"""What every provider keeps, of anyone's: run over one of yours, it says what is not so.

CONTRACT = ProviderContract(Case(plugin=DeskProvider, settings={…}, resource=…, words={…}, outside=Desk))

@pytest.mark.parametrize("promise", CONTRACT.promises, ids=str)
def test_contract(promise):
promise.run()
"""

from collections.abc import Sequence

from sojourn.contracts.case import Case
from sojourn.contracts.ending import Ending
from sojourn.contracts.obtaining import Obtaining
from sojourn.contracts.promises import Promise, promises_of

__all__ = ["Case", "ProviderContract"]


class ProviderContract(Obtaining, Ending):
    """The promises of a provider as one case has it."""

    def __init__(self, case: Case) -> None:
        """Raise ValueError if the case is none."""
        if len(case.words) < 2:
            raise ValueError("words must have two actions at least, so that fewer can be asked for")
        super().__init__(case)

    @property
    def promises(self) -> Sequence[Promise]:
        return promises_of(self)
