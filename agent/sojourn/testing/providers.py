"""What every provider keeps, of anyone's: run over one of yours, it says what is not so.

CONTRACT = ProviderContract(Case(plugin=DeskProvider, settings={…}, resource=…, words={…}, outside=Desk))

@pytest.mark.parametrize("promise", CONTRACT.promises, ids=str)
def test_contract(promise):
promise.run()
"""

from collections.abc import Sequence

from sojourn.testing.exchange_promises import Obtaining
from sojourn.testing.promises import Promise, promises_of
from sojourn.testing.provider_case import Case
from sojourn.testing.revocation_promises import Ending

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
