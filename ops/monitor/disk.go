//go:build unix

package monitor

// disk has the calls that wait for the disk of a service, which may hang. They are
// made without the mutex of the Monitor and those of units. Tests replace them by
// ones that hang.
type disk struct {
	read         func(dir string) settings
	isExecutable func(path string) (bool, error)
	isThere      func(path string) bool
	write        func(*unit) // the files of supervise
}

func theDisk() disk {
	return disk{read: read, isExecutable: isExecutable, isThere: isThere, write: (*unit).writeFiles}
}
