"""Studies of other libraries, read into study directories of this one."""
