//go:build !linux

package resources

// killsFile returns "": on other systems nothing distinguishes a process that
// was killed for lack of memory.
func killsFile(string) string { return "" }
