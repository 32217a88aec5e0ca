package preforktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func starveFiles(pid int) (restore func() error, err error) {
	return lowerLimit(pid, unix.RLIMIT_NOFILE, 0)
}

// lowerLimit sets the soft limit of a process.
func lowerLimit(pid, resource int, soft uint64) (restore func() error, err error) {
	var before unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &before); err != nil {
		return nil, os.NewSyscallError("prlimit", err)
	}
	lowered := unix.Rlimit{Cur: soft, Max: before.Max}
	if err := unix.Prlimit(pid, resource, &lowered, nil); err != nil {
		return nil, os.NewSyscallError("prlimit", err)
	}
	return func() error {
		return os.NewSyscallError("prlimit", unix.Prlimit(pid, resource, &before, nil))
	}, nil
}

// starveProcesses uses the limit of the user, or a cgroup for root, to which
// that limit does not apply.
func starveProcesses(pid int) (restore func() error, err error) {
	if os.Geteuid() != 0 {
		return lowerLimit(pid, unix.RLIMIT_NPROC, 0)
	}
	home, err := pidsCgroup(pid)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(home, "preforktest-")
	if err != nil {
		return nil, err
	}
	err = os.WriteFile(filepath.Join(dir, "pids.max"), []byte("0"), 0)
	if err == nil {
		err = moveToCgroup(dir, pid)
	}
	restore = func() error {
		err := moveToCgroup(home, pid)
		if errors.Is(err, unix.ESRCH) {
			err = nil // the process has exited
		}
		return errors.Join(err, os.Remove(dir))
	}
	if err != nil {
		return nil, errors.Join(err, restore())
	}
	return restore, nil
}

func moveToCgroup(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// pidsCgroup returns the directory of the cgroup that limits the number of
// processes of pid. It supports both versions of cgroups.
func pidsCgroup(pid int) (string, error) {
	data, err := procFile(pid, "cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || part[0] != "0" && !slices.Contains(strings.Split(part[1], ","), "pids") {
			continue
		}
		for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
			dir := filepath.Join(root, part[2])
			if _, err := os.Stat(filepath.Join(dir, "pids.max")); err == nil {
				return dir, nil
			}
		}
	}
	return "", fmt.Errorf("process %d is in no cgroup that limits the number of processes: %w",
		pid, errors.ErrUnsupported)
}

// isStopped reports whether all threads of a process are stopped.
func isStopped(pid int) (bool, error) {
	tids, err := numericNames(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false, err
	}
	for _, tid := range tids {
		stat, err := procFile(pid, fmt.Sprintf("task/%d/stat", tid))
		if err != nil {
			continue // the thread has exited
		}
		if p, err := parseStat(string(stat)); err != nil || p.State != 'T' {
			return false, err
		}
	}
	return true, nil
}
