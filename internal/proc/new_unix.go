//go:build unix && !linux

package proc

// New returns a Table that calls notify for each change in its processes.
func New(notify func(Note)) Table { return newPortableTable(notify, nil) }
