//go:build !unix

package preforktest

func anyChild() bool { return false }

func ownDescriptors() (map[int]string, error) { return nil, errUnsupported }
