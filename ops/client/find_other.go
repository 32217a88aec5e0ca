//go:build !linux

package client

import "net"

func listening() ([]string, error) { return inDirectories(), nil }

func peerOf(*net.UnixConn) Peer { return Peer{UID: -1} }
