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
	return lower(pid, unix.RLIMIT_NOFILE, 0)
}

// lower sets the soft limit of a process.
func lower(pid, resource int, to uint64) (restore func() error, err error) {
	var before unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &before); err != nil {
		return nil, os.NewSyscallError("prlimit", err)
	}
	if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: to, Max: before.Max}, nil); err != nil {
		return nil, os.NewSyscallError("prlimit", err)
	}
	return func() error { return os.NewSyscallError("prlimit", unix.Prlimit(pid, resource, &before, nil)) }, nil
}

// starveProcesses is by the limit of the user, which does not hold for root; there by a cgroup.
func starveProcesses(pid int) (restore func() error, err error) {
	if os.Geteuid() != 0 {
		return lower(pid, unix.RLIMIT_NPROC, 0)
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
		err = moveInto(dir, pid)
	}
	restore = func() error {
		err := moveInto(home, pid)
		if errors.Is(err, unix.ESRCH) {
			err = nil // it has ended
		}
		return errors.Join(err, os.Remove(dir))
	}
	if err != nil {
		return nil, errors.Join(err, restore())
	}
	return restore, nil
}

func moveInto(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// pidsCgroup is the directory of the cgroup that bounds the number of processes of pid, of either version of cgroups.
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
	return "", fmt.Errorf("process %d is in no cgroup that bounds the number of processes: %w", pid, errors.ErrUnsupported)
}

// isStopped tells whether all threads of a process are stopped.
func isStopped(pid int) (bool, error) {
	tids, err := numbers(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return false, err
	}
	for _, tid := range tids {
		stat, err := procFile(pid, fmt.Sprintf("task/%d/stat", tid))
		if err != nil {
			continue // it has ended
		}
		if p, err := parseStat(string(stat)); err != nil || p.State != 'T' {
			return false, err
		}
	}
	return true, nil
}
