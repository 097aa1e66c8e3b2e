package notebook

import (
	"fmt"
	"strings"

	"cdblab/helpers/results"
)

// layers draws the way of files from the blobs of an image to what a container sees.
func layers(q *results.Question) (picture, error) {
	p := picture{
		Title: "From the image's blobs to the file system of two containers",
		Note:  "Values with the same number are equal. A container sees its own directory over those of the layers.",
	}
	v, err := values(q, "index", "manifest", "config", "chain IDs", "lowerdir", "upperdir", "the second one's upperdir",
		"layer 1: digest of the compressed bytes", "layer 1: DiffID", "layer 1: directory", "layer 1: files in it",
		"layer 2: digest of the compressed bytes", "layer 2: DiffID", "layer 2: directory", "layer 2: files in it",
		"upper directory: files in it")
	if err != nil {
		return p, err
	}
	for name := range v {
		v[name] = unbracketed(v[name])
	}
	f, _ := factNamed(q, "chain IDs")
	chain := listOf(f)
	if len(chain) != 2 {
		return p, fmt.Errorf("the fact %q has %d elements and not 2", "chain IDs", len(chain))
	}
	p.Table = [][]string{{"layer", "blob", "DiffID", "chain ID: the snapshot's name", "directory: a lowerdir", "files"}}
	for _, layer := range []string{"layer 2", "layer 1"} {
		p.Table = append(p.Table, []string{
			layer, v[layer+": digest of the compressed bytes"], v[layer+": DiffID"],
			unbracketed(chain[strings.Index("12", layer[6:])]), v[layer+": directory"], v[layer+": files in it"],
		})
	}
	p.Drawing = drawLayers(p.Table[1:], v)
	p.Table = append(p.Table,
		[]string{"the container's upperdir", "", "", "", v["upperdir"], v["upper directory: files in it"]},
		[]string{"the second container's upperdir", "", "", "", v["the second one's upperdir"], "none of these"})
	return p, nil
}

func drawLayers(rows [][]string, v map[string]string) *drawing {
	d := &drawing{}
	const width, gap, height, first = 112, 34, 2*lineHeight + 12, 92
	left := 2 + first + gap
	upper := 2 + height + 44
	wide := 2*width + gap
	last := left + 3*(width+gap)
	// The manifest names the blobs, and the config the DiffIDs. Boxes are drawn over these lines.
	for i := range 2 {
		x := left + i*(width+gap) + width/2
		for row := range rows {
			down(d, x, 2+height, upper+(row+1)*(height+22))
		}
	}
	d.box("root", 2, 2, first, height, cut(first, "index", v["index"])...)
	for i, name := range []string{"manifest", "config"} {
		x := left + i*(width+gap)
		d.box("root", x, 2, width, height, name, v[name])
		arrow(d, x-gap, 2+height/2, x)
	}
	d.text("title", 1, upper+(height-lineHeight)/2, "upperdir")
	d.centered("label", last+width/2, upper-lineHeight-6, "/ of the first")
	d.centered("label", last+width+gap+width/2, upper-lineHeight-6, "/ of the second")
	d.box("adopted", last, upper, width, height, v["upperdir"], "its writes")
	d.box("adopted", last+width+gap, upper, width, height, v["the second one's upperdir"], "its writes")
	headings := []string{"blob", "DiffID", "chain ID", "directory"}
	for i, row := range rows {
		y := upper + (i+1)*(height+22)
		d.text("title", 1, y+(height-lineHeight)/2, row[0])
		for j, value := range row[1:4] {
			x := left + j*(width+gap)
			d.box("process", x, y, width, height, headings[j], value)
			arrow(d, x+width, y+height/2, x+width+gap)
		}
		d.box(fmt.Sprintf("color%d", i), last, y, wide, height, "lowerdir: "+row[4], row[5]+" files, read only")
		for _, x := range []int{last + width/2, last + width + gap + width/2} {
			down(d, x, y-22, y)
		}
	}
	return d
}

func down(d *drawing, x, y, to int) {
	d.path("edge arrow", fmt.Sprintf("M%d %dV%dl-4 -6m4 6l4 -6", x, y, to-3))
}

func arrow(d *drawing, x, y, to int) {
	d.path("edge arrow", fmt.Sprintf("M%d %dH%dl-6 -4m6 4l-6 4", x+2, y, to-3))
}
