//go:build !linux

package preforktest

func starveFiles(int) (func() error, error)     { return nil, errUnsupported }
func starveProcesses(int) (func() error, error) { return nil, errUnsupported }
func isStopped(int) (bool, error)               { return false, errUnsupported }
