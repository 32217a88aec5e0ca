package resources

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// plan lists the changes that a worker makes to itself, in this order.
type plan struct {
	limits     []Rlimit // sorted by Resource
	nice       int      // zero means unchanged
	umask      *int     // nil means unchanged
	cpus       []int    // sorted; nil means unchanged
	chroot     string
	identity   *identity // nil means unchanged
	noNewPrivs bool
}

// identity is the user and the groups of a process.
type identity struct {
	uid, gid uint32
	groups   []uint32 // supplementary groups, sorted, without gid
}

func (id identity) String() string {
	return fmt.Sprintf("user %d, group %d, supplementary groups %v", id.uid, id.gid, id.groups)
}

const (
	minNice, maxNice = -20, 19
	maxUmask         = 0o777
	maxCPU           = 1023      // the highest number in a unix.CPUSet
	maxID            = 1<<32 - 2 // to the kernel, 1<<32 - 1 means "unchanged"
	maxGroups        = 1 << 16   // NGROUPS_MAX
)

// String encodes a plan as elements "key:value", separated by bars. The keys
// are lim, nice, mask, cpu, id (uid:gid:supplementary groups), nnp and root. The path
// of root may contain any bytes, also bars, so it is the last element.
func (p plan) String() string {
	var all []string
	for _, l := range p.limits {
		all = append(all, fmt.Sprintf("lim:%s:%d:%d", l.Resource, l.Soft, l.Hard))
	}
	if p.nice != 0 {
		all = append(all, "nice:"+strconv.Itoa(p.nice))
	}
	if p.umask != nil {
		all = append(all, fmt.Sprintf("mask:%03o", *p.umask))
	}
	if len(p.cpus) > 0 {
		all = append(all, "cpu:"+ranges(p.cpus))
	}
	if id := p.identity; id != nil {
		var groups []string
		for _, g := range id.groups {
			groups = append(groups, strconv.FormatUint(uint64(g), 10))
		}
		all = append(all, fmt.Sprintf("id:%d:%d:%s", id.uid, id.gid, strings.Join(groups, ".")))
	}
	if p.noNewPrivs {
		all = append(all, "nnp:")
	}
	if p.chroot != "" {
		all = append(all, "root:"+p.chroot)
	}
	return strings.Join(all, "|")
}

// parsePlan decodes a plan. It accepts only the exact output of String.
func parsePlan(text string) (p plan, err error) {
	if text == "" {
		return p, nil
	}
	list, root, hasRoot := strings.Cut("|"+text, "|root:")
	if hasRoot && (!strings.HasPrefix(root, "/") || strings.IndexByte(root, 0) >= 0) {
		return plan{}, fmt.Errorf("malformed element %q of a plan: not an absolute path", truncate("root:"+root))
	}
	p.chroot = root
	for _, element := range strings.Split(list, "|")[1:] {
		key, value, _ := strings.Cut(element, ":")
		if err := p.parseElement(key, value); err != nil {
			return plan{}, fmt.Errorf("malformed element %q of a plan: %w", truncate(element), err)
		}
	}
	if p.String() != text {
		return plan{}, fmt.Errorf("malformed plan %q", truncate(text))
	}
	return p, nil
}

func (p *plan) parseElement(key, value string) (err error) {
	switch key {
	case "lim":
		return p.parseLimit(value)
	case "nice":
		p.nice, err = parseNice(value)
	case "mask":
		p.umask, err = parseUmask(value)
	case "cpu":
		p.cpus, err = parseRanges(value)
	case "id":
		p.identity, err = parseIdentity(value)
	case "nnp":
		p.noNewPrivs = true
	default:
		return errors.New("unknown key")
	}
	return err
}

func parseNice(value string) (int, error) {
	nice, err := strconv.Atoi(value)
	if err == nil && (nice < minNice || nice > maxNice || nice == 0) {
		err = errors.New("out of range")
	}
	return nice, err
}

func parseUmask(value string) (*int, error) {
	mask, err := strconv.ParseUint(value, 8, 16)
	if err == nil && mask > maxUmask {
		err = errors.New("out of range")
	}
	return new(int(mask)), err
}

func (p *plan) parseLimit(value string) error {
	parts := strings.Split(value, ":")
	if len(parts) != 3 || !slices.Contains(limitNames, parts[0]) {
		return errors.New("not a limit")
	}
	if n := len(p.limits); n > 0 && p.limits[n-1].Resource >= parts[0] {
		return errors.New("out of order")
	}
	soft, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return err
	}
	hard, err := strconv.ParseUint(parts[2], 10, 64)
	if err != nil {
		return err
	}
	if soft > hard {
		return errors.New("soft above hard")
	}
	p.limits = append(p.limits, Rlimit{parts[0], soft, hard})
	return nil
}

func parseIdentity(value string) (*identity, error) {
	parts := strings.Split(value, ":")
	if len(parts) != 3 {
		return nil, errors.New("not three parts")
	}
	var id identity
	var err error
	if id.uid, err = parseID(parts[0]); err != nil {
		return nil, err
	}
	if id.gid, err = parseID(parts[1]); err != nil {
		return nil, err
	}
	if parts[2] == "" {
		return &id, nil
	}
	for text := range strings.SplitSeq(parts[2], ".") {
		g, err := parseID(text)
		if err != nil {
			return nil, err
		}
		if n := len(id.groups); g == id.gid || n > 0 && id.groups[n-1] >= g || n == maxGroups {
			return nil, errors.New("groups out of order, duplicate, or too many")
		}
		id.groups = append(id.groups, g)
	}
	return &id, nil
}

// parseID parses the number of a user or a group. It accepts digits only, and
// not the number that means "unchanged" to the kernel.
func parseID(text string) (uint32, error) {
	if !isNumber(text) {
		return 0, fmt.Errorf("%q is not a number", truncate(text))
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxID {
		return 0, fmt.Errorf("%s is out of range", truncate(text))
	}
	return uint32(n), nil
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// ranges formats sorted numbers, for instance as 0-3.8.
func ranges(all []int) string {
	var parts []string
	for i := 0; i < len(all); {
		last := i
		for last+1 < len(all) && all[last+1] == all[last]+1 {
			last++
		}
		part := strconv.Itoa(all[i])
		if last > i {
			part += "-" + strconv.Itoa(all[last])
		}
		parts = append(parts, part)
		i = last + 1
	}
	return strings.Join(parts, ".")
}

func parseRanges(text string) (all []int, err error) {
	for part := range strings.SplitSeq(text, ".") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		lo, errLo := strconv.Atoi(from)
		hi, errHi := strconv.Atoi(to)
		if errLo != nil || errHi != nil || lo < 0 || hi > maxCPU || lo > hi || len(all) > 0 && lo <= all[len(all)-1] {
			return nil, errors.New("not a list of CPUs")
		}
		for n := lo; n <= hi; n++ {
			all = append(all, n)
		}
	}
	return all, nil
}

func truncate(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
