//go:build unix && !linux

package proc

// New returns a Table that calls notify for what its processes have to say.
func New(notify func(Note)) Table { return newPortableTable(notify, nil) }
