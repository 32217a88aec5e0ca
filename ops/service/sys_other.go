//go:build !linux

package service

// onNetwork is not known here; see Service.Poll.
func onNetwork(string) bool { return false }
