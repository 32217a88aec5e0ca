//go:build !unix || solaris || aix

package service

import "errors"

// New fails on these systems, and a worker's Service does nothing.

func checkDir(string) error            { return errors.ErrUnsupported }
func checkWritable(string) error       { return errors.ErrUnsupported }
func examineFlag(string) (bool, error) { return false, errors.ErrUnsupported }
func createFlag(string) error          { return errors.ErrUnsupported }
func removeFlag(string) error          { return errors.ErrUnsupported }
func ownerOf(string) (uint32, error)   { return 0, errors.ErrUnsupported }
