"""What is private: from arguments to kernels. Public functions are faces of it (sparseconv/*.py)."""
