package resources

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// killsFile returns the file with the kernel's counter for workers that start
// in cgroup, a directory of cgroup version 2, or in the cgroup of this process
// if it is "". If version 1 has the memory controller, version 2 does not, and
// the workers are in the memory cgroup of their manager.
func killsFile(cgroup string) string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return killsFileOf(string(mounts), string(self), cgroup)
}

func killsFileOf(mounts, cgroups, cgroup string) string {
	v1, v2, top := memoryCgroups(mounts, cgroups)
	if v1 != "" {
		return existing(v1 + "/memory.oom_control")
	}
	if cgroup != "" {
		v2 = filepath.Clean(cgroup)
	}
	// Memory is charged to the nearest cgroup above that has the controller.
	for dir := v2; len(dir) >= len(top) && top != ""; dir = filepath.Dir(dir) {
		if file := existing(dir + "/memory.events"); file != "" {
			return file
		}
		if dir == "/" {
			break
		}
	}
	return ""
}

func existing(file string) string {
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// memoryCgroups parses /proc/self/mountinfo and /proc/self/cgroup. It returns
// the directory of the process's cgroup of the version 1 memory controller
// (v1), and of its version 2 cgroup (v2), which is mounted at top. A result is
// "" if there is no such cgroup, or if it is not visible from here, for
// instance in a container.
func memoryCgroups(mounts, cgroups string) (v1, v2, top string) {
	paths := make(map[string]string) // by controller; "" is version 2
	for line := range strings.Lines(cgroups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) < 3 {
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			paths[controller] = fields[2]
		}
	}
	// mountinfo escapes these characters of a path.
	unoctal := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		mount, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 5 || len(kind) < 3 {
			continue
		}
		root, point := unoctal(mount[3]), unoctal(mount[4])
		switch {
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory"):
			v1 = below(point, root, paths["memory"])
		case kind[0] == "cgroup2":
			v2, top = below(point, root, paths[""]), point
		}
	}
	return v1, v2, top
}

// below maps path to the file system if the part of its hierarchy from root
// down is mounted at point.
func below(point, root, path string) string {
	sub, ok := strings.CutPrefix(path+"/", strings.TrimSuffix(root, "/")+"/")
	if !ok || strings.HasPrefix(sub, "..") || path == "" {
		return ""
	}
	return filepath.Join(point, sub)
}
