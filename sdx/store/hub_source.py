"""What a step fetches from the hub, as a plain value."""

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class HubSource(ABC):
    """Something at a commit of a repository on the hub."""

    group: str
    """What the keys of its options begin with: `corpus`, `task.xnli.test`."""
    hub_id: str
    revision: str
    alternative: str
    """What the user can do without the hub."""

    repo_type = "dataset"

    @property
    def where(self) -> str:
        """The source in messages."""
        return f"{self.group}.hub_id={self.hub_id}"

    @abstractmethod
    def cached(self) -> bool:
        """Whether the hub's local cache has the source. Uses no network."""

    @abstractmethod
    def probe(self) -> None:
        """Asks the hub for the source without fetching it. Any exception, see `sdx.sources.hub.explain`, says that the
        source is unavailable."""

    @abstractmethod
    def missing_reason(self) -> str:
        """What is wrong if repository and commit are there and the source is not, with the fix."""
