//go:build !unix

package marker

import "errors"

// On systems without Unix processes, no process inherits a role: every process is
// an ordinary one.

func BecomeCommand(func(string) error, func(int, error) error) {}
func Take() (Marker, Role, error)                              { return Marker{}, Ordinary, nil }
func Depth(func(pid int) bool) (int, error)                    { return 0, errors.ErrUnsupported }
func HideDepth()                                               {}
func IsMissing(int) bool                                       { return false }
