//go:build !linux

package sockets

// acceptQueue is for Linux only.
func acceptQueue(string, int) (waiting, backlog int, ok bool) { return 0, 0, false }
