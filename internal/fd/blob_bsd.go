//go:build unix && !linux

package fd

// AnonymousFile returns the descriptor of an empty file without a name. It is
// close-on-exec. The file is in the directory for temporary files.
func AnonymousFile() (int, error) { return unlinkedFile() }

// CheckMemoryFiles returns nil: only on Linux can a system refuse files in
// memory.
func CheckMemoryFiles() error { return nil }

func seal(int) error { return nil }
