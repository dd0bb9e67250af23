from tests.integration.stack.conftest import one_stack, stack, tiny_model

__all__ = ["one_stack", "stack", "tiny_model"]
