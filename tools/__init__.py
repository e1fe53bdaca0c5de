"""What `make` calls: the environment, the web build, the release and the test runner."""
