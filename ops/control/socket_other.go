//go:build !unix || solaris || aix

package control

import (
	"errors"
	"net"
	"os"
)

const abstractNames = false

// A socket cannot be had on this system: a Manager does not run here either.
type socket struct {
	ln      *net.UnixListener
	file    *os.File
	address string
}

func adopt(*os.File) (*socket, error) { return nil, errors.ErrUnsupported }

func (s *socket) claim(permissions) error { return nil }
func (s *socket) close()                  {}
func (s *socket) remove()                 {}

func (p place) listenFile(string, permissions) (*socket, error) { return nil, errors.ErrUnsupported }

func listenAbstract(string) (*socket, error) { return nil, errors.ErrUnsupported }
