package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/prefork-go/prefork/ops/client"
)

// maxAddress is how long the address of a unix socket may be: the struct of the
// system has 108 bytes (104 on BSD) and a NUL ends it.
const maxAddress = 107

// off is the value of the path that means no socket.
const off = "off"

// rootDir is the directory of sockets of root. Tests have another.
var rootDir = "/run/prefork"

// A place is an address for the socket.
type place struct {
	address string
	makeDir os.FileMode // the directory is made with this mode; 0 for never
}

// places returns the places for the socket of a name, the best one first; none if
// there should be no socket.
func places(cfg Config, name string) []place {
	for _, chosen := range []string{os.Getenv(client.EnvSocket), cfg.Path} {
		switch {
		case chosen == off:
			return nil
		case strings.HasPrefix(chosen, "@"):
			return []place{{address: chosen}}
		case chosen != "":
			if path, err := filepath.Abs(chosen); err == nil {
				chosen = path
			}
			return []place{{address: chosen}}
		}
	}
	var all []place
	file := name + client.Suffix
	if dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		all = append(all, place{address: filepath.Join(dir, file)})
	}
	if os.Geteuid() == 0 {
		all = append(all, place{address: filepath.Join(rootDir, file), makeDir: 0o755})
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		all = append(all, place{address: filepath.Join(dir, "prefork", file), makeDir: 0o700})
	}
	if abstractNames {
		all = append(all, place{address: client.Prefix + strconv.Itoa(os.Geteuid()) + "/" + name})
	}
	return all
}

// withPID returns the address for a process that finds the address taken.
func (p place) withPID() string {
	pid := "-" + strconv.Itoa(os.Getpid())
	if base, ok := strings.CutSuffix(p.address, client.Suffix); ok {
		return base + pid + client.Suffix
	}
	return p.address + pid
}

// fileName returns a name for a file and for /proc/net/unix, which has one socket
// a line.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._-+", r):
			return r
		}
		return '_'
	}, name)
	if len(name) > 64 {
		name = name[:64]
	}
	if strings.Trim(name, ".") == "" {
		return "prefork"
	}
	return name
}

// errTaken means that a process listens at an address already.
var errTaken = errors.New("another process listens there")

// open opens the socket in the first place that can be had.
func open(cfg Config, name string, perm permissions) (*socket, error) {
	var errs []error
	for _, p := range places(cfg, name) {
		s, err := p.open(p.address, perm)
		if errors.Is(err, errTaken) {
			s, err = p.open(p.withPID(), perm)
		}
		if err == nil {
			return s, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", p.address, err))
	}
	return nil, errors.Join(errs...)
}

func (p place) open(address string, perm permissions) (*socket, error) {
	if n := len(address); n > maxAddress {
		return nil, fmt.Errorf("the address of a unix socket has at most %d bytes, and this one has %d: set %s or Config.Path to a shorter one",
			maxAddress, n, client.EnvSocket)
	}
	if strings.HasPrefix(address, "@") {
		if !abstractNames {
			return nil, fmt.Errorf("only Linux has abstract names: %w", errors.ErrUnsupported)
		}
		s, err := listenAbstract(address)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = errTaken
		}
		return s, err
	}
	return p.listenFile(address, perm)
}
