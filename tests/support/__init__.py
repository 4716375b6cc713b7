"""What the tests share: real processes in a temporary folder, ended whatever happens."""
