package preforktest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// procFile reads a file of a process. If the process exits between open and
// read, the kernel returns ESRCH: the process does not exist.
func procFile(pid int, name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	return data, notExist(err)
}

func notExist(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

// processes returns the processes for which match returns true, by ascending
// pid, except those that exit during the call.
func processes(match func(pid int) bool) ([]Proc, error) {
	pids, err := numericNames("/proc")
	if err != nil {
		return nil, err
	}
	var procs []Proc
	for _, pid := range pids {
		if !match(pid) {
			continue
		}
		if p, err := readProc(pid); err == nil {
			procs = append(procs, p)
		}
	}
	return procs, nil
}

// numericNames returns the names in a directory that are numbers: processes,
// threads or descriptors.
func numericNames(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, notExist(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	var all []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	return all, notExist(err)
}

func readProc(pid int) (Proc, error) {
	stat, err := procFile(pid, "stat")
	if err != nil {
		return Proc{}, err
	}
	p, err := parseStat(string(stat))
	if err != nil {
		return Proc{}, err
	}
	if cmdline, err := procFile(pid, "cmdline"); err == nil && len(cmdline) > 0 {
		p.Cmdline = strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	}
	return p, nil
}

// parseStat parses "pid (comm) state ppid …". The process sets comm, which may
// contain brackets and spaces.
func parseStat(stat string) (Proc, error) {
	var p Proc
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return p, fmt.Errorf("preforktest: stat without a name: %q", stat)
	}
	p.Comm = stat[open+1 : end]
	_, err := fmt.Sscanf(stat[:open], "%d ", &p.PID)
	if err == nil {
		_, err = fmt.Sscanf(stat[end+1:], " %c %d", &p.State, &p.PPID)
	}
	if err != nil {
		return p, fmt.Errorf("preforktest: stat %q: %w", stat, err)
	}
	return p, nil
}

func children(pid int) ([]Proc, error) {
	return processes(func(other int) bool {
		stat, err := procFile(other, "stat")
		if err != nil {
			return false
		}
		p, err := parseStat(string(stat))
		return err == nil && p.PPID == pid
	})
}

func descriptors(pid int) (map[int]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := numericNames(dir)
	if err != nil {
		return nil, err
	}
	open := make(map[int]string)
	for _, fd := range fds {
		// In this process, the descriptor of the directory is closed by now.
		if name, err := os.Readlink(filepath.Join(dir, strconv.Itoa(fd))); err == nil {
			open[fd] = name
		}
	}
	return open, nil
}

func threads(pid int) (int, error) {
	tids, err := numericNames(fmt.Sprintf("/proc/%d/task", pid))
	return len(tids), err
}

func contextSwitches(pid int) (int64, error) {
	tids, err := numericNames(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, tid := range tids {
		status, err := procFile(pid, fmt.Sprintf("task/%d/status", tid))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the thread has exited
		}
		if err != nil {
			return 0, err
		}
		n, err := sumFields(status, "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func privateMemory(pid int) (int64, error) {
	rollup, err := procFile(pid, "smaps_rollup")
	if err != nil {
		return 0, err
	}
	kib, err := sumFields(rollup, "Private_Clean", "Private_Dirty")
	return kib * 1024, err
}

// sumFields adds the numbers of lines "name: number …". Each name must occur
// once.
func sumFields(text []byte, names ...string) (sum int64, err error) {
	found := 0
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		for _, want := range names {
			if name != want {
				continue
			}
			var n int64
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0, fmt.Errorf("preforktest: %q: %w", line, err)
			}
			sum += n
			found++
		}
	}
	if found != len(names) {
		return 0, fmt.Errorf("preforktest: %v: found %d", names, found)
	}
	return sum, nil
}

// hasVariable reports whether the process was started with this environment
// variable. It is false for a zombie.
func hasVariable(pid int, variable string) bool {
	environ, err := procFile(pid, "environ")
	return err == nil && bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+variable+"\x00"))
}

// pipeName returns the name of the pipe in /proc, such as "pipe:[4711]". It is
// the same for both ends in all processes.
func pipeName(f *os.File) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("pipe:[%d]", stat.Ino)
}

// holdsPipe reports whether the process has the pipe open for writing.
func holdsPipe(pid int, pipe string) bool {
	open, _ := descriptors(pid)
	for fd, name := range open {
		if name != pipe {
			continue
		}
		// The permissions of the link are the mode of the descriptor.
		info, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err == nil && info.Mode().Perm()&0o200 != 0 {
			// Between fork and exec, a child of this process has all of its
			// descriptors open, including this pipe. The child may be the program of
			// another test, which must not be killed.
			process, err := readProc(pid)
			return err == nil && process.PPID != os.Getpid()
		}
	}
	return false
}
