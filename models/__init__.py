"""The CemoBAM network, one file per box of the paper's Fig. 1."""

import warnings

# PyG compiles helpers with torch.jit.script on import, which torch >= 2.10 calls deprecated: nothing a user can act on.
warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated", category=FutureWarning)
warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated", category=DeprecationWarning)
