//go:build unix && !linux

package scoreboard

// seal does nothing: there are no seals here for a file that has had a name.
func seal(int) error { return nil }
