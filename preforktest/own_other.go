//go:build !unix

package preforktest

func reapChild() bool { return false }

func ownDescriptors() (map[int]string, error) { return nil, errUnsupported }
