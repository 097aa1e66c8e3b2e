package results

import (
	"bufio"
	"io"
)

// EachLine calls a function with each line of the input. A longer line than maxLine is cut: it is no event of a test.
// The bytes are valid until the function returns.
func EachLine(in io.Reader, line func([]byte)) error {
	lines := bufio.NewReaderSize(in, 64<<10)
	var long []byte
	for {
		part, err := lines.ReadSlice('\n')
		if err == bufio.ErrBufferFull || len(long) > 0 {
			long = append(long, part[:min(len(part), maxLine-len(long))]...)
			part = long
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if len(part) > 0 {
			line(part)
		}
		long = long[:0]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
