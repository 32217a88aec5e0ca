//go:build !unix

package activation

import "errors"

// Socket is a socket from systemd or start_server. There is none here.
type Socket struct{ FD int }

func (Socket) String() string     { return "" }
func (Socket) Serves(string) bool { return false }

func Sockets() ([]Socket, error)                            { return nil, nil }
func Match([]*Socket, string, string) (*Socket, error)      { return nil, nil }
func MatchBound([]*Socket, string, string) (*Socket, error) { return nil, nil }
func Sole([]*Socket, string) *Socket                        { return nil }
func Inspect(int) Socket                                    { return Socket{} }
func Misaddressed() string                                  { return "" }
func StarterName(int, string) (string, error)               { return "", errors.ErrUnsupported }
func Readdress(int)                                         {}
func ClearEnv()                                             {}
