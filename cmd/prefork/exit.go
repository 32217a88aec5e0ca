package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prefork-go/prefork/ops/client"
)

// The exit statuses.
const (
	exitDone = iota
	exitFailed
	exitUsage
	exitNotRunning
	exitForbidden
	exitNoAnswer
	exitPending
)

// An exitError ends the command with a status other than 0. Text is for stderr;
// "" means that there is nothing more to print.
type exitError struct {
	code  int
	text  string
	shown bool // as JSON
}

func (e *exitError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, text: fmt.Sprintf(format, args...)}
}

// failure returns the error that ends the command after a request has failed. The
// text names the manager, and who may, or what to do.
func (a *app) failure(err error) error {
	var (
		several *client.SeveralError
		refused *client.RefusedError
	)
	switch {
	case errors.As(err, &several):
		return &exitError{code: exitUsage, text: a.several(several)}
	case errors.As(err, &refused):
		return &exitError{code: refusedStatus(refused), text: a.prefix() + flagNames.Replace(refused.Error())}
	case errors.Is(err, client.ErrForeign):
		return &exitError{code: exitForbidden, text: a.prefix() + err.Error() +
			"; any user can take an abstract name: run prefork as that user"}
	case errors.Is(err, client.ErrForbidden):
		return &exitError{code: exitForbidden, text: a.prefix() + whoMay(a.address(), os.Geteuid())}
	case errors.Is(err, client.ErrNotRunning):
		return &exitError{code: exitNotRunning, text: a.prefix() + a.whyNotRunning()}
	case errors.Is(err, client.ErrLost):
		return &exitError{code: exitNoAnswer, text: fmt.Sprintf(
			"%sthe connection ended before the outcome: %s has exited, or was killed. A command may have been carried out", a.prefix(), a.manager())}
	case errors.Is(err, client.ErrNoAnswer), errors.Is(err, context.DeadlineExceeded):
		return &exitError{code: exitNoAnswer, text: a.prefix() + a.noAnswer()}
	case a.peer == client.Peer{}: // no connection was made
		return &exitError{code: exitNotRunning, text: a.prefix() + client.ErrNotRunning.Error() + " there: " + err.Error()}
	}
	return &exitError{code: exitFailed, text: a.prefix() + err.Error()}
}

// flagNames replaces parameters of the protocol by the flags that set them.
var flagNames = strings.NewReplacer("pool=", "-p", "stay=1", "--stay", "slot=", "--slot ", "lines=", "-n ")

func refusedStatus(e *client.RefusedError) int {
	switch e.Code {
	case 403:
		return exitForbidden
	case 503:
		return exitNoAnswer
	case 404, 409: // a worker that is gone; a state that does not permit it
		return exitFailed
	}
	return exitUsage
}

// manager names the process for a message.
func (a *app) manager() string {
	if a.peer.PID > 0 {
		return fmt.Sprintf("manager %d", a.peer.PID)
	}
	return "the manager"
}

func (a *app) prefix() string {
	if a.name == "" {
		return ""
	}
	return a.name + ": "
}

// address returns the address of the socket that is not permitted.
func (a *app) address() string {
	if isAddress(a.chosen()) {
		return a.chosen()
	}
	found, _ := client.Find()
	return closed(found, a.chosen())
}

// closed returns the first socket with a name that this user may not use; the name
// if there is none. "" stands for any name.
func closed(found []client.Found, name string) string {
	for _, f := range found {
		if errors.Is(f.Err, client.ErrForbidden) && (name == "" || f.Name == name) {
			return f.Socket
		}
	}
	return name
}

// chosen returns the manager that the user has chosen; "" for none.
func (a *app) chosen() string {
	if a.socket != "" {
		return a.socket
	}
	return os.Getenv(client.EnvSocket)
}

func isAddress(socket string) bool {
	return strings.HasPrefix(socket, "@") || strings.ContainsRune(socket, '/')
}

// nameOf returns the name of a manager from the address of its socket.
func nameOf(address string) string {
	return strings.TrimSuffix(address[strings.LastIndexByte(address, '/')+1:], client.Suffix)
}

func (a *app) several(e *client.SeveralError) string {
	var b strings.Builder
	b.WriteString("several managers are running, name one of them with -s:")
	names := make(map[string]int)
	for _, f := range e.Found {
		names[f.Name]++
	}
	for _, f := range e.Found {
		by := f.Name
		if names[f.Name] > 1 {
			by = f.Socket
		}
		fmt.Fprintf(&b, "\n  -s %s\tpid %d", by, f.PID)
	}
	return b.String()
}

// whyNotRunning explains why no manager was reached, and what to do.
func (a *app) whyNotRunning() string {
	text := client.ErrNotRunning.Error()
	chosen := a.chosen()
	switch {
	case chosen == "off":
		text += ": " + client.EnvSocket + " is off"
	case chosen == "":
		return text + ": no control socket was found. A program has one if it calls ops.Attach" + othersRunning()
	case strings.HasPrefix(chosen, "@"):
		text += ": no process listens on " + chosen
	case isAddress(chosen):
		st, err := os.Lstat(chosen)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			text += ": there is no socket " + chosen
		case err != nil:
			text += ": " + err.Error()
		case st.Mode().Type() != fs.ModeSocket:
			text += ": " + chosen + " is no socket"
		default:
			text += ": no process listens on " + chosen + ", which its manager has left behind"
		}
	default:
		text += " under this name"
	}
	if since := a.lastSeen(); since != "" {
		text += "; " + since
	}
	return text + othersRunning()
}

func othersRunning() string {
	found, err := client.Find()
	if err != nil || len(found) == 0 {
		return ""
	}
	var running, foreign []string
	for _, f := range found {
		if errors.Is(f.Err, client.ErrForeign) {
			foreign = append(foreign, fmt.Sprintf("%s (run prefork as user %s)", f.Socket, userName(f.UID)))
			continue
		}
		running = append(running, f.Name)
	}
	text := ""
	if len(running) > 0 {
		text = ". Running: " + strings.Join(running, ", ")
	}
	if len(foreign) > 0 {
		text += ". Not asked, because any user can take an abstract name: " + strings.Join(foreign, ", ")
	}
	return text
}

// whoMay explains who may use a socket.
func whoMay(address string, uid int) string {
	st, err := os.Lstat(address)
	if err != nil {
		if dir := closedDirectory(address); dir != "" {
			return fmt.Sprintf("not permitted: the directory %s is closed to user %s; it is for %s", dir, userName(uid), owners(dir))
		}
		return fmt.Sprintf("not permitted for user %s: %s", userName(uid), address)
	}
	return fmt.Sprintf("not permitted for user %s: the socket %s (mode %04o) is for %s", userName(uid), address, st.Mode().Perm(), owners(address))
}

// closedDirectory returns the first directory on the way to a file that this
// process may not search.
func closedDirectory(path string) string {
	for dir := filepath.Dir(path); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); err == nil {
			return dir
		}
	}
	return ""
}

// owners returns the users to whom a file is open.
func owners(path string) string {
	st, err := os.Lstat(path)
	if err != nil {
		return "root"
	}
	uid, gid, ok := ownerOf(st)
	if !ok {
		return "its owner"
	}
	text := "root"
	if uid != 0 {
		text += " and user " + userName(uid)
	}
	if st.Mode().Perm()&0o060 != 0 {
		text += " and group " + groupName(gid)
	}
	return text
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return strconv.Itoa(gid)
}

// noAnswer explains why a manager has not answered, as far as the system shows it.
func (a *app) noAnswer() string {
	text := fmt.Sprintf("%s does not answer within %v", a.manager(), queryTimeout)
	if why := processState(a.peer.PID); why != "" {
		text += "; " + why
	}
	return text
}

// processState describes a process that does nothing; "" if it may run.
func processState(pid int) string {
	if pid <= 0 {
		return ""
	}
	dir := "/proc/" + strconv.Itoa(pid)
	if frozen(dir) {
		return "its cgroup is frozen"
	}
	switch state := stateLetter(dir); state {
	case "T":
		return "it is stopped (SIGSTOP)"
	case "t":
		return "a debugger has stopped it"
	case "Z", "X":
		return "it has exited"
	case "D":
		return "it waits in the kernel (state D)"
	case "":
		if hasExited(pid) {
			return "it has exited"
		}
	}
	return ""
}

// stateLetter returns the state of a process in /proc, such as "S".
func stateLetter(dir string) string {
	data, err := os.ReadFile(dir + "/status")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(data), "\nState:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}

// frozen reports whether the cgroup of a process is frozen, as docker pause does.
func frozen(dir string) bool {
	data, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		hierarchy, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if hierarchy != "0" {
			continue
		}
		_, path, _ := strings.Cut(rest, ":")
		events, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", path, "cgroup.events"))
		return err == nil && strings.Contains(string(events), "frozen 1")
	}
	return false
}
