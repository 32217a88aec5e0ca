package sockets_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	room "github.com/prefork-go/prefork/internal/sockets"
	"github.com/prefork-go/prefork/internal/testprog"
)

// attacker is the user who swaps files: nobody.
const attacker = 65534

// onThread calls f in a thread of its own, after change has changed it.
func onThread(change func() error, f func()) (done chan error) {
	done = make(chan error, 1)
	go func() {
		runtime.LockOSThread() // until the thread ends, so it serves no other goroutine
		err := change()
		if err == nil {
			f()
		}
		done <- err
	}()
	return done
}

// becomeAttacker changes the user of the thread, and of no other.
func becomeAttacker() error {
	for _, call := range [][2]uintptr{{unix.SYS_SETGROUPS, 0}, {unix.SYS_SETRESGID, attacker}, {unix.SYS_SETRESUID, attacker}} {
		if _, _, err := unix.RawSyscall(call[0], call[1], call[1], call[1]); err != 0 {
			return err
		}
	}
	return nil
}

// dropNetAdmin takes from the thread the capability with which the kernel names
// the file of a socket. In a container root does not have it.
func dropNetAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&header, &data[0])
}

// vault makes files of root's, and directories that have a file of the socket's
// name: a regular one, a dead socket and a live one.
func vault(t *testing.T) string {
	t.Helper()
	dir := testprog.SocketDir(t)
	t.Cleanup(func() { // before TempDir looks for leftovers
		all, _ := filepath.Glob(dir + "/*")
		for _, path := range all {
			os.RemoveAll(path)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "dead", "live", "empty"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"secret", "file/sock"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"dead/sock", "live/sock"} {
		ln, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		if name == "dead/sock" {
			ln.Close()
		} else {
			t.Cleanup(func() { ln.Close() })
		}
	}
	return dir
}

// state describes all files of a vault, but not sockets in the empty directory:
// the attacker can have root make one there, as the operator could.
func state(t *testing.T, vault string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(vault, func(path string, entry fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, "/empty/sock") && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return nil
		}
		var content []byte
		if entry.Type().IsRegular() {
			content, err = os.ReadFile(path)
		}
		fmt.Fprintf(&b, "%s: mode %o, user %d, group %d, inode %d: %s\n", path, st.Mode, st.Uid, st.Gid, st.Ino, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// attacks are moves of the attacker against the file sock in dir.
var attacks = map[string]struct {
	prepare func(dir, vault string) error
	move    func(dir, vault string)
}{
	"the attacker's directory": {
		func(dir, _ string) error { return os.Chown(dir, attacker, attacker) },
		swapFile,
	},
	"a sticky directory": {
		func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		swapFile,
	},
	"a directory above": {
		func(dir, _ string) error {
			return errors.Join(os.Chown(filepath.Dir(dir), attacker, attacker), os.Chown(dir, attacker, attacker), os.Rename(dir, dir+".real"))
		},
		func(dir, vault string) {
			targets := []string{dir + ".real", dir + ".real", vault + "/file", vault + "/dead", vault + "/live", vault + "/empty"}
			os.Symlink(targets[rand.IntN(len(targets))], dir+".new")
			os.Rename(dir+".new", dir)
		},
	},
}

func swapFile(dir, vault string) {
	path, secret := dir+"/sock", vault+"/secret"
	switch rand.IntN(8) {
	case 0:
		os.Remove(path)
		unix.Mkfifo(path, 0o666)
	case 1:
		os.Remove(path)
		os.Link(secret, path) // the kernel refuses it with fs.protected_hardlinks
	case 2:
		os.Rename(path, path+".moved")
		os.Symlink(secret, path)
	case 3:
		os.Remove(path)
		os.Mkdir(path, 0o777)
	case 4:
		os.Remove(path)
		if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
			unix.Bind(fd, &unix.SockaddrUnix{Name: path})
			unix.Close(fd)
		}
	default:
		os.Symlink(secret, path+".link")
		os.Rename(path+".link", path)
	}
	runtime.Gosched()
	os.Remove(path) // so that root can bind
}

// Another user swaps the file of root's unix socket, or a directory above it, for
// links to files of root's, at every moment. None of these files is changed,
// given away or removed. With -long this takes a minute.
func TestAttackOnSocketPath(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has files of another user to protect")
	}
	lasts := 100 * time.Millisecond
	if testprog.Long() {
		lasts = 10 * time.Second
	}
	const patience = 20 * time.Second // until the first bind on a busy machine
	for name, attack := range attacks {
		for privilege, change := range map[string]func() error{"root": func() error { return nil }, "root in a container": dropNetAdmin} {
			t.Run(name+", "+privilege, func(t *testing.T) {
				vault, above := vault(t), testprog.SocketDir(t)
				t.Cleanup(func() {
					all, _ := filepath.Glob(above + "/*")
					for _, path := range all {
						os.RemoveAll(path)
					}
				})
				dir := filepath.Join(above, "d")
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(above, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := attack.prepare(dir, vault); err != nil {
					t.Fatal(err)
				}
				before := state(t, vault)
				var stop atomic.Bool
				moves := 0
				attacking := onThread(becomeAttacker, func() {
					if err := unix.Access(vault, unix.X_OK); err != nil {
						return // the directory of temporary files is closed
					}
					for ; !stop.Load(); moves++ {
						attack.move(dir, vault)
					}
				})
				bound, refused := 0, 0
				binding := onThread(change, func() {
					for began := time.Now(); time.Since(began) < lasts || bound == 0 && time.Since(began) < patience; {
						set := room.New(room.Config{Log: slog.New(slog.DiscardHandler), Inherited: room.NewInherited(nil, nil)})
						ln, err := set.ListenWith(room.Options{UID: attacker, GID: attacker, Mode: 0o666}, "unix", dir+"/sock")
						if err == nil {
							bound++
							ln.Close()
						} else {
							refused++
						}
						set.RemoveFiles()
						set.Close()
					}
				})
				err := <-binding
				stop.Store(true)
				if attackErr := <-attacking; err != nil || attackErr != nil {
					t.Skip(err, attackErr)
				}
				if moves == 0 {
					t.Skip("the attacker cannot reach the directory of temporary files")
				}
				t.Logf("%d times bound, %d times refused, %d moves", bound, refused, moves)
				if bound == 0 {
					t.Error("root could never bind")
				}
				if after := state(t, vault); after != before {
					t.Errorf("files of root's were touched:\n%swere:\n%s", after, before)
				}
			})
		}
	}
}
