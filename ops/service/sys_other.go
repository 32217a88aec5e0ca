//go:build !linux

package service

// onNetwork returns false: the file system type is unknown here. On a network
// file system Service.Poll should be set.
func onNetwork(string) bool { return false }
