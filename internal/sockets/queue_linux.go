package sockets

import (
	"encoding/binary"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// acceptQueue returns how many connections wait on a listening socket, and how
// many can.
func acceptQueue(network string, descriptor int) (waiting, backlog int, ok bool) {
	switch {
	case strings.HasPrefix(network, "tcp"):
		return tcpQueue(descriptor)
	case network == "unix":
		return unixQueue(descriptor)
	}
	return 0, 0, false
}

// stateListen is the kernel's TCP_LISTEN, also of a unix socket.
const stateListen = 10

func tcpQueue(descriptor int) (waiting, backlog int, ok bool) {
	info, err := unix.GetsockoptTCPInfo(descriptor, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != stateListen {
		return 0, 0, false
	}
	// In this state the two fields have another meaning than their names.
	return int(info.Unacked), int(info.Sacked), true
}

// Of linux/unix_diag.h.
const (
	showQueue      = 0x10 // UDIAG_SHOW_RQLEN
	attributeQueue = 4    // UNIX_DIAG_RQLEN
)

// diagRequest is a netlink message: nlmsghdr and unix_diag_req.
type diagRequest struct {
	header   syscall.NlMsghdr
	family   uint8
	protocol uint8
	_        uint16
	states   uint32
	inode    uint32
	show     uint32
	cookie   [2]uint32
}

// The length of unix_diag_msg, which comes before the attributes, and the place of
// the socket's state in it.
const (
	diagHeader = 16
	diagState  = 2
)

// unixQueue asks sock_diag, since no option of a unix socket has its queue. A
// kernel may lack it (CONFIG_UNIX_DIAG), and a sandbox forbid it.
func unixQueue(descriptor int) (waiting, backlog int, ok bool) {
	var stat unix.Stat_t
	if unix.Fstat(descriptor, &stat) != nil {
		return 0, 0, false
	}
	diag, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, 0, false
	}
	defer unix.Close(diag)
	const any = ^uint32(0)
	request := diagRequest{family: unix.AF_UNIX, states: any, inode: uint32(stat.Ino), show: showQueue, cookie: [2]uint32{any, any}}
	request.header = syscall.NlMsghdr{Len: uint32(unsafe.Sizeof(request)), Type: unix.SOCK_DIAG_BY_FAMILY, Flags: unix.NLM_F_REQUEST}
	message := unsafe.Slice((*byte)(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	if unix.Sendto(diag, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return 0, 0, false
	}
	answer := make([]byte, 512) // the kernel has answered when Sendto returns
	n, _, err := unix.Recvfrom(diag, answer, 0)
	if err != nil {
		return 0, 0, false
	}
	return parseDiag(answer[:n])
}

// parseDiag finds the queue in an answer of sock_diag.
func parseDiag(answer []byte) (waiting, backlog int, ok bool) {
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil || len(messages) != 1 || messages[0].Header.Type != unix.SOCK_DIAG_BY_FAMILY || len(messages[0].Data) < diagHeader {
		return 0, 0, false
	}
	if messages[0].Data[diagState] != stateListen {
		return 0, 0, false
	}
	for rest := messages[0].Data[diagHeader:]; len(rest) >= unix.SizeofRtAttr; {
		size, kind := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if size < unix.SizeofRtAttr || size > len(rest) {
			return 0, 0, false
		}
		if value := rest[unix.SizeofRtAttr:size]; kind == attributeQueue && len(value) == 8 {
			return int(binary.NativeEndian.Uint32(value)), int(binary.NativeEndian.Uint32(value[4:])), true
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
	return 0, 0, false
}
