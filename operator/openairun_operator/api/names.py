"""The names under which the resources and the operator's marks on it are known."""

from typing import Final

GROUP: Final = "openairun.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "OpenAIRun"
PLURAL: Final = "openairuns"
PROVIDER_KIND: Final = "OpenAIProvider"
PROVIDER_PLURAL: Final = "openaiproviders"
DEFAULT_PROVIDER: Final = "default"
"""The provider that runs of its namespace use when they name none."""

FINALIZER: Final = f"{GROUP}/cancel-run"
RECORD_ANNOTATION: Final = f"{GROUP}/run"
CREATE_AGAIN_ANNOTATION: Final = f"{GROUP}/create-again"

METADATA_PREFIX: Final = "openairun_"
"""Keys of a run's metadata at OpenAI that begin with this are the operator's own."""
TOKEN_KEY: Final = f"{METADATA_PREFIX}token"
"""The metadata key by which a run whose create had no answer is found again."""
