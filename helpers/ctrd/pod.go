//go:build linux

package ctrd

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"gotest.tools/v3/poll"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cdblab/helpers/proc"
	"cdblab/helpers/systemd"
)

// KubeletNamespace is the containerd namespace of the CRI plugin, which serves the kubelet.
const KubeletNamespace = "k8s.io"

// Pod is a pod that the CRI plugin has made, by the calls of the kubelet. It has the host's network, because another one needs a CNI
// plugin.
type Pod struct {
	Sandbox string // id of the sandbox's container

	d      *Daemon
	config *cri.PodSandboxConfig
}

// TryRunPod has the CRI plugin start the sandbox of a pod. CgroupParent is as the kubelet gives it: the path of a cgroup, or the name
// of a slice with the systemd cgroup driver. The image of the sandbox is that of the configuration.
func (d *Daemon) TryRunPod(name, cgroupParent string) (*Pod, error) {
	d.q.Helper()
	d.q.LogCommand("# as the kubelet: RunPodSandbox of %s in cgroup %s", name, cgroupParent)
	p := &Pod{d: d, config: &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "cdb-lab"},
		LogDirectory: d.q.Mkdir(name + "-logs"),
		DnsConfig:    &cri.DNSConfig{Servers: []string{"127.0.0.1"}},
		Annotations:  systemd.Mark(d.q),
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent,
			SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: onHostNetwork()},
		},
	}}
	d.q.Cleanup(d.removePods) // after a failure: a pod has a mount that only the plugin knows of
	ctx, cancel := context.WithTimeout(context.Background(), 2*proc.Patience)
	defer cancel()
	r, err := cri.NewRuntimeServiceClient(d.conn()).RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		return nil, err
	}
	p.Sandbox = r.PodSandboxId
	return p, nil
}

// removePods removes all pods of the daemon.
func (d *Daemon) removePods() {
	if !d.runs() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*proc.Patience)
	defer cancel()
	runtime := cri.NewRuntimeServiceClient(d.conn())
	pods, err := runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		d.q.Errorf("list the pods: %v", err)
	}
	for _, pod := range pods.GetItems() {
		if err := removePod(ctx, runtime, pod.Id); err != nil {
			d.q.Errorf("remove the pod %s: %v", pod.Id, err)
		}
	}
}

func removePod(ctx context.Context, runtime cri.RuntimeServiceClient, id string) error {
	_, err := runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	if err == nil {
		_, err = runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	}
	return err
}

func onHostNetwork() *cri.NamespaceOption {
	return &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER, Ipc: cri.NamespaceMode_POD}
}

func (d *Daemon) conn() grpc.ClientConnInterface { return d.client.Conn().(grpc.ClientConnInterface) }

// RunContainer creates and starts a container in the pod, and returns its id.
func (p *Pod) RunContainer(name, ref string, args ...string) string {
	p.d.q.Helper()
	p.d.q.LogCommand("# as the kubelet: CreateContainer and StartContainer of %s: %s", name, strings.Join(args, " "))
	ctx, cancel := context.WithTimeout(context.Background(), 2*proc.Patience)
	defer cancel()
	runtime := cri.NewRuntimeServiceClient(p.d.conn())
	made, err := runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: p.Sandbox, SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: ref}, Command: args, LogPath: name + ".log",
			Annotations: systemd.Mark(p.d.q),
			Linux: &cri.LinuxContainerConfig{
				Resources:       &cri.LinuxContainerResources{},
				SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: onHostNetwork()},
			},
		},
	})
	if err == nil {
		_, err = runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId})
	}
	if err != nil {
		p.d.q.Fatalf("start a container in the pod: %v", err)
	}
	return made.ContainerId
}

// Remove has the CRI plugin stop and remove the pod with its containers.
func (p *Pod) Remove() {
	p.d.q.Helper()
	p.d.q.LogCommand("# as the kubelet: StopPodSandbox and RemovePodSandbox of %s", p.config.Metadata.Name)
	ctx, cancel := context.WithTimeout(context.Background(), 2*proc.Patience)
	defer cancel()
	if err := removePod(ctx, cri.NewRuntimeServiceClient(p.d.conn()), p.Sandbox); err != nil {
		p.d.q.Errorf("remove the pod %s: %v", p.Sandbox, err)
	}
}

// ForKubelet returns the same daemon, used in the containerd namespace of the CRI plugin.
func (d *Daemon) ForKubelet() *Daemon {
	d.q.Helper()
	d.requirePrivate() // the namespace has no name of a question
	kubelet := *d
	kubelet.Namespace = KubeletNamespace
	kubelet.connect()
	return &kubelet
}

// HasPodImage returns a check that succeeds when the CRI plugin serves, and has an image. It learns of an image that ctr has pulled from an
// event.
func (d *Daemon) HasPodImage(ref string) poll.Check {
	return func(poll.LogT) poll.Result {
		ctx, cancel := context.WithTimeout(context.Background(), proc.Patience)
		defer cancel()
		r, err := cri.NewImageServiceClient(d.conn()).ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}})
		if err != nil || r.Image == nil {
			return poll.Continue("the CRI plugin does not have the image %s: %v", ref, err)
		}
		return poll.Success()
	}
}
