package notebook

// drawTable draws a table whose first row and first column are headings. A column has at most so many characters (the first one
// twice as many), and a cell so many lines. The class of a cell is what class returns.
func drawTable(table [][]string, width, lines int, class func(row, column int) string) *drawing {
	d := &drawing{}
	cells := make([][][]string, len(table))
	var widths, heights []int
	for i, row := range table {
		height := 1
		for j, value := range row {
			most := max(width, 8)
			if j == 0 {
				most *= 2
			}
			text := wrapTo(lines, value, most)
			cells[i] = append(cells[i], text)
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], widest(text...)+2*pad)
			height = max(height, len(text))
		}
		heights = append(heights, height*lineHeight+8)
	}
	y := 1
	for i, row := range cells {
		x := 1
		for j, text := range row {
			c := class(i, j)
			if i > 0 && j > 0 {
				d.rect(c, x, y, widths[j], heights[i])
			}
			d.text(c, x+pad, y+4, text...)
			x += widths[j] + 3
		}
		y += heights[i] + 3
	}
	return d
}
