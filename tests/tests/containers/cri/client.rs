//! The part of the CRI (`runtime.v1`) that runs a container in a pod. Only the used fields are declared, with
//! their numbers in the interface, so no protobuf compiler is needed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::world::CRI_IMAGE;

/// A pod, as in its spec.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    /// Path of its cgroup.
    pub(crate) cgroup: String,
    /// The directory of its containers' logs.
    pub(crate) logs: PathBuf,
    /// How often each container was restarted.
    pub(crate) restarts: u32,
}

/// `NamespaceMode.NODE`: no network of its own, so that no plugin is needed.
const NODE: i32 = 2;
/// `NamespaceMode.CONTAINER`: as a kubelet asks for, so that its first process is not ended by a signal that it does not handle.
const CONTAINER: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<SandboxSecurity>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxSecurity {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerSecurity {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}

/// An answer or a request that contains one id.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct StopContainerRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    mounts: Vec<Mount>,
    #[prost(string, tag = "11")]
    log_path: String,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainerConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct Mount {
    #[prost(string, tag = "1")]
    container_path: String,
    #[prost(string, tag = "2")]
    host_path: String,
    #[prost(bool, tag = "3")]
    readonly: bool,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerConfig {
    #[prost(message, optional, tag = "1")]
    resources: Option<LinuxContainerResources>,
    #[prost(message, optional, tag = "2")]
    security_context: Option<ContainerSecurity>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerResources {
    #[prost(int64, tag = "4")]
    memory_limit_in_bytes: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<ContainerStatus>,
}

/// `CONTAINER_EXITED`.
pub(crate) const EXITED: i32 = 2;

/// The state of a container.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerStatus {
    #[prost(int32, tag = "3")]
    pub(crate) state: i32,
    #[prost(int32, tag = "7")]
    pub(crate) exit_code: i32,
    #[prost(string, tag = "10")]
    pub(crate) reason: String,
}

/// A connection to the runtime.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Client {
    /// Connects to the socket of the runtime.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let channel = runtime.block_on(endpoint.connect()).context("connect to the CRI")?;
        Ok(Self { runtime, channel })
    }

    fn call<Request, Answer>(&self, method: &'static str, request: Request) -> Result<Answer>
    where
        Request: Message + 'static,
        Answer: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        self.runtime.block_on(async {
            grpc.ready().await?;
            let codec: ProstCodec<Request, Answer> = ProstCodec::default();
            let answer = grpc.unary(tonic::Request::new(request), path, codec).await;
            Ok(answer.with_context(|| format!("CRI {method}"))?.into_inner())
        })
    }

    /// Runs the sandbox of a pod. Returns its id.
    pub(crate) fn run_pod(&self, pod: &Pod) -> Result<String> {
        let answer: Id = self.call("RunPodSandbox", RunPodSandboxRequest { config: Some(pod.config()) })?;
        Ok(answer.id)
    }

    /// Runs a container of the pod. Returns its id.
    pub(crate) fn run(&self, pod: &Pod, sandbox: &str, wanted: &Wanted<'_>) -> Result<String> {
        let Wanted { name, limit_bytes, script, gates } = *wanted;
        let host = Some(NamespaceOption { network: NODE, pid: CONTAINER });
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: pod.restarts }),
            image: Some(ImageSpec { image: CRI_IMAGE.into() }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            mounts: vec![Mount {
                container_path: "/gate".into(),
                host_path: gates.display().to_string(),
                readonly: true,
            }],
            log_path: format!("{name}/{}.log", pod.restarts),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources { memory_limit_in_bytes: limit_bytes.try_into()? }),
                security_context: Some(ContainerSecurity { namespace_options: host }),
            }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(pod.config()),
        };
        let answer: Id = self.call("CreateContainer", request)?;
        let _started: Empty = self.call("StartContainer", Id { id: answer.id.clone() })?;
        Ok(answer.id)
    }

    /// What the runtime says about a container.
    pub(crate) fn status(&self, id: &str) -> Result<ContainerStatus> {
        let answer: ContainerStatusResponse = self.call("ContainerStatus", Id { id: id.into() })?;
        answer.status.context("an answer without a status")
    }

    /// Stops a container, which has so many seconds to end by itself.
    pub(crate) fn stop(&self, id: &str, seconds: i64) -> Result<()> {
        let request = StopContainerRequest { id: id.into(), timeout: seconds };
        self.call("StopContainer", request).map(|_: Empty| ())
    }

    /// Stops and removes a pod with all its containers.
    pub(crate) fn remove(&self, sandbox: &str) -> Result<()> {
        let _stopped: Empty = self.call("StopPodSandbox", Id { id: sandbox.into() })?;
        let _removed: Empty = self.call("RemovePodSandbox", Id { id: sandbox.into() })?;
        Ok(())
    }
}

/// A container to run.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    /// 0: no limit.
    pub(crate) limit_bytes: u64,
    pub(crate) script: &'a str,
    /// The directory with its gates.
    pub(crate) gates: &'a Path,
}

impl Pod {
    fn config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: self.name.clone(),
                uid: self.uid.clone(),
                namespace: self.namespace.clone(),
            }),
            log_directory: self.logs.display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                security_context: Some(SandboxSecurity {
                    namespace_options: Some(NamespaceOption { network: NODE, pid: CONTAINER }),
                }),
            }),
        }
    }
}
