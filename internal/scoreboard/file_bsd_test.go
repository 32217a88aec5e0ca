//go:build unix && !linux

package scoreboard

func anonymousFile() (int, error) { return unlinkedFile() }
