//go:build unix

package manager_test

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/proc/proctest"
)

// markerOf returns the marker that a worker was started with.
func markerOf(t testing.TB, p *proctest.Process) marker.Marker {
	t.Helper()
	for _, kv := range p.Spec.Env {
		if value, ok := strings.CutPrefix(kv, marker.Env+"="); ok {
			m, err := marker.Parse(value)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
	}
	t.Fatal("a worker without a marker")
	return marker.Marker{}
}

// successorMarker returns the marker that a successor was started with; false
// means that p is a worker.
func successorMarker(t testing.TB, p *proctest.Process) (marker.Marker, bool) {
	t.Helper()
	for _, kv := range p.Spec.Env {
		if value, ok := strings.CutPrefix(kv, marker.SuccessorEnv+"="); ok {
			m, err := marker.ParseSuccessor(value)
			if err != nil {
				t.Fatal(err)
			}
			return m, true
		}
	}
	return marker.Marker{}, false
}

// blob is the file with the data of Pass from which a worker reads.
type blob struct {
	fd  int
	ino uint64
}

// noteBlob remembers the file that a worker is passed. The number of its
// descriptor may be another file's later.
func (r *rig) noteBlob(p *proctest.Process) {
	var b blob
	command := p.Spec.DieWithParent
	if _, ok := successorMarker(r.t, p); !ok && p.Spec.Control != 0 && !command {
		if m := markerOf(r.t, p); m.Passed != 0 {
			b.fd = int(p.Spec.Files[m.Passed])
			b.ino = inode(b.fd)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs = append(r.blobs, b)
}

// keepsPassed reports whether the Manager still has the file that the i-th
// worker was passed.
func (r *rig) keepsPassed(i int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.blobs[i-1]
	return b.fd != 0 && inode(b.fd) == b.ino
}

// passed returns the data that the i-th worker was passed.
func (r *rig) passed(i int) string {
	r.t.Helper()
	p := r.process(i)
	m := markerOf(r.t, p)
	if m.Passed == 0 {
		return "(nothing)"
	}
	data, err := fd.ReadBlob(int(p.Spec.Files[m.Passed]))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

func inode(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return uint64(st.Ino)
}

// isNonblocking reports whether O_NONBLOCK is set on a listener. It is a
// property of the socket, which all its descriptors share.
func isNonblocking(t *testing.T, l any) bool {
	t.Helper()
	conn, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	flags := 0
	conn.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.O_NONBLOCK != 0
}
