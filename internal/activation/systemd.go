package activation

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// NotifyEnv is the variable that names the socket on which systemd reads the
// notifications of a service with Type=notify.
const NotifyEnv = "NOTIFY_SOCKET"

const (
	watchdogPIDEnv  = "WATCHDOG_PID"  // the process that must report WATCHDOG=1
	watchdogUsecEnv = "WATCHDOG_USEC" // and how often
	execPIDEnv      = "SYSTEMD_EXEC_PID"
	listenPIDFDEnv  = "LISTEN_PIDFDID" // LISTEN_PID, as the inode of a pidfd
)

// IsNotify reports whether systemd asks by a variable of this name for
// notifications, which only the main process of a service may send.
func IsNotify(name string) bool {
	return name == NotifyEnv || name == watchdogPIDEnv || name == watchdogUsecEnv
}

// NotifyVariables returns the variables of env for which IsNotify is true.
func NotifyVariables(env []string) (all []string) {
	for _, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); IsNotify(name) {
			all = append(all, kv)
		}
	}
	return all
}

// WithoutNotify removes those variables from env. A program that another one has
// started would pass for the main process if it sent notifications, or upgraded
// itself.
func WithoutNotify(env []string) []string {
	return slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return IsNotify(name)
	})
}

// RestoreNotify returns env with the variables of notify that it lacks.
func RestoreNotify(env, notify []string) []string {
	env = slices.Clone(env)
	for _, kv := range notify {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(env, func(other string) bool { return strings.HasPrefix(other, name+"=") }) {
			env = append(env, kv)
		}
	}
	return env
}

// CanReplaceProcess returns nil if another process can take the place of
// process pid. Otherwise the end of pid would end the whole service, and the
// error suggests an alternative. byStarter reports whether start_server started
// the process; getenv reads its environment.
func CanReplaceProcess(pid int, byStarter bool, getenv func(string) string) error {
	switch {
	case pid == 1:
		return errors.New("this manager is process 1, whose end would end all others in its container: start another container, or reload with Config.ReloadBinary")
	case byStarter:
		return errors.New("this program runs under start_server, which would take an upgrade for a crash: send start_server a HUP instead")
	case getenv(execPIDEnv) == strconv.Itoa(pid) && getenv(NotifyEnv) == "":
		return errors.New("systemd would take the end of this process for the end of the service: set Type=notify in the unit, or reload with Config.ReloadBinary")
	}
	return nil
}

// NotifyMainPID reports process pid to systemd as the main process of the
// service. socket is the value of NotifyEnv; NotifyMainPID is a no-op if it is
// empty. The old main process must call it: systemd ignores other processes,
// unless the unit has NotifyAccess=all.
func NotifyMainPID(pid int, socket string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second)) // a reader that is stuck must not block the loop
	_, err = fmt.Fprintf(conn, "MAINPID=%d\n", pid)
	return err
}
