//go:build unix

package marker

import (
	"fmt"
	"strconv"
)

func parseDepth(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s=%s is not a value that a manager writes; unset it", DepthEnv, strconv.Quote(short(value)))
	}
	return n, nil
}
