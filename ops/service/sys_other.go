//go:build !linux

package service

// maxPath is the length of a path that the system refuses.
const maxPath = 1024

// maxName returns the length of the longest file name in a directory. It is 255
// on all common file systems.
func maxName(string) int { return 255 }

// onNetwork returns false: the file system type is unknown here. On a network
// file system Service.Poll should be set.
func onNetwork(string) bool { return false }
