//! What the messages are made of that containerd sends inside others: events, metrics, options. A row per type.
//!
//! A row is the full name and the fields, `name=number` and a letter: none for text, `u` unsigned, `i` signed, `b`
//! true or false, `d` floating point, `t` a time, `m` a map of text, `a` another typed document, `<name>` a message
//! of this table; `*` before the name: repeated. The names and numbers are those of containerd's and cgroups' own
//! definitions.

/// The fields of `name`.
pub(super) fn fields(name: &str) -> Option<&'static str> {
    SCHEMAS.iter().find(|(n, _)| *n == name).map(|(_, fields)| *fields)
}

#[rustfmt::skip]
pub(super) static SCHEMAS: &[(&str, &str)] = &[
    ("containerd.events.NamespaceCreate", "name=1 labels=2m"),
    ("containerd.events.NamespaceUpdate", "name=1 labels=2m"),
    ("containerd.events.NamespaceDelete", "name=1"),
    ("containerd.services.images.v1.ImageCreate", "name=1 labels=2m"),
    ("containerd.services.images.v1.ImageUpdate", "name=1 labels=2m"),
    ("containerd.services.images.v1.ImageDelete", "name=1"),
    ("containerd.events.ContentCreate", "digest=1 size=2i"),
    ("containerd.events.ContentDelete", "digest=1"),
    ("containerd.events.SnapshotPrepare", "key=1 parent=2 snapshotter=5"),
    ("containerd.events.SnapshotCommit", "key=1 name=2 snapshotter=5"),
    ("containerd.events.SnapshotRemove", "key=1 snapshotter=5"),
    ("containerd.events.ContainerCreate", "id=1 image=2 runtime=3<containerd.events.ContainerCreate.Runtime>"),
    ("containerd.events.ContainerCreate.Runtime", "name=1 options=2a"),
    ("containerd.events.ContainerUpdate", "id=1 image=2 labels=3m snapshot_key=4"),
    ("containerd.events.ContainerDelete", "id=1"),
    ("containerd.events.SandboxCreate", "sandbox_id=1"),
    ("containerd.events.SandboxStart", "sandbox_id=1"),
    ("containerd.events.SandboxExit", "sandbox_id=1 exit_status=2u exited_at=3t"),
    ("containerd.events.TaskCreate",
        "container_id=1 bundle=2 *rootfs=3<containerd.types.Mount> io=4<containerd.events.TaskIO> checkpoint=5 pid=6u"),
    ("containerd.events.TaskStart", "container_id=1 pid=2u"),
    ("containerd.events.TaskDelete", "container_id=1 pid=2u exit_status=3u exited_at=4t id=5"),
    ("containerd.events.TaskIO", "stdin=1 stdout=2 stderr=3 terminal=4b"),
    ("containerd.events.TaskExit", "container_id=1 id=2 pid=3u exit_status=4u exited_at=5t"),
    ("containerd.events.TaskOOM", "container_id=1"),
    ("containerd.events.TaskExecAdded", "container_id=1 exec_id=2"),
    ("containerd.events.TaskExecStarted", "container_id=1 exec_id=2 pid=3u"),
    ("containerd.events.TaskPaused", "container_id=1"),
    ("containerd.events.TaskResumed", "container_id=1"),
    ("containerd.events.TaskCheckpointed", "container_id=1 checkpoint=2"),
    ("containerd.types.Mount", "type=1 source=2 target=3 *options=4"),
    ("containerd.runc.v1.ProcessDetails", "exec_id=1"),
    ("containerd.runc.v1.Options",
        "no_pivot_root=1b no_new_keyring=2b shim_cgroup=3 io_uid=4u io_gid=5u binary_name=6 root=7 criu_path=8 \
         systemd_cgroup=9b criu_image_path=10 criu_work_path=11 task_api_address=12 task_api_version=13u"),
    ("runtimeoptions.v1.Options", "type_url=1 config_path=2 config_body=3x"),
    ("io.containerd.cgroups.v1.Metrics",
        "*hugetlb=1<io.containerd.cgroups.v1.HugetlbStat> pids=2<io.containerd.cgroups.v1.PidsStat> \
         cpu=3<io.containerd.cgroups.v1.CPUStat> memory=4<io.containerd.cgroups.v1.MemoryStat> \
         blkio=5<io.containerd.cgroups.v1.BlkIOStat> rdma=6<io.containerd.cgroups.v1.RdmaStat> \
         *network=7<io.containerd.cgroups.v1.NetworkStat> cgroup_stats=8<io.containerd.cgroups.v1.CgroupStats> \
         memory_oom_control=9<io.containerd.cgroups.v1.MemoryOomControl>"),
    ("io.containerd.cgroups.v1.HugetlbStat",
        "usage=1u max=2u failcnt=3u pagesize=4"),
    ("io.containerd.cgroups.v1.PidsStat",
        "current=1u limit=2u"),
    ("io.containerd.cgroups.v1.CPUStat",
        "usage=1<io.containerd.cgroups.v1.CPUUsage> throttling=2<io.containerd.cgroups.v1.Throttle>"),
    ("io.containerd.cgroups.v1.CPUUsage",
        "total=1u kernel=2u user=3u *per_cpu=4u"),
    ("io.containerd.cgroups.v1.Throttle",
        "periods=1u throttled_periods=2u throttled_time=3u"),
    ("io.containerd.cgroups.v1.MemoryStat",
        "cache=1u rss=2u rss_huge=3u mapped_file=4u dirty=5u writeback=6u pg_pg_in=7u pg_pg_out=8u pg_fault=9u \
         pg_maj_fault=10u inactive_anon=11u active_anon=12u inactive_file=13u active_file=14u unevictable=15u \
         hierarchical_memory_limit=16u hierarchical_swap_limit=17u total_cache=18u total_rss=19u \
         total_rss_huge=20u total_mapped_file=21u total_dirty=22u total_writeback=23u total_pg_pg_in=24u \
         total_pg_pg_out=25u total_pg_fault=26u total_pg_maj_fault=27u total_inactive_anon=28u \
         total_active_anon=29u total_inactive_file=30u total_active_file=31u total_unevictable=32u \
         usage=33<io.containerd.cgroups.v1.MemoryEntry> swap=34<io.containerd.cgroups.v1.MemoryEntry> \
         kernel=35<io.containerd.cgroups.v1.MemoryEntry> kernel_tcp=36<io.containerd.cgroups.v1.MemoryEntry>"),
    ("io.containerd.cgroups.v1.MemoryEntry",
        "limit=1u usage=2u max=3u failcnt=4u"),
    ("io.containerd.cgroups.v1.MemoryOomControl",
        "oom_kill_disable=1u under_oom=2u oom_kill=3u"),
    ("io.containerd.cgroups.v1.BlkIOStat",
        "*io_service_bytes_recursive=1<io.containerd.cgroups.v1.BlkIOEntry> \
         *io_serviced_recursive=2<io.containerd.cgroups.v1.BlkIOEntry> \
         *io_queued_recursive=3<io.containerd.cgroups.v1.BlkIOEntry> \
         *io_service_time_recursive=4<io.containerd.cgroups.v1.BlkIOEntry> \
         *io_wait_time_recursive=5<io.containerd.cgroups.v1.BlkIOEntry> \
         *io_merged_recursive=6<io.containerd.cgroups.v1.BlkIOEntry> \
         *io_time_recursive=7<io.containerd.cgroups.v1.BlkIOEntry> \
         *sectors_recursive=8<io.containerd.cgroups.v1.BlkIOEntry>"),
    ("io.containerd.cgroups.v1.BlkIOEntry",
        "op=1 device=2 major=3u minor=4u value=5u"),
    ("io.containerd.cgroups.v1.RdmaStat",
        "*current=1<io.containerd.cgroups.v1.RdmaEntry> *limit=2<io.containerd.cgroups.v1.RdmaEntry>"),
    ("io.containerd.cgroups.v1.RdmaEntry",
        "device=1 hca_handles=2u hca_objects=3u"),
    ("io.containerd.cgroups.v1.NetworkStat",
        "name=1 rx_bytes=2u rx_packets=3u rx_errors=4u rx_dropped=5u tx_bytes=6u tx_packets=7u tx_errors=8u \
         tx_dropped=9u"),
    ("io.containerd.cgroups.v1.CgroupStats",
        "nr_sleeping=1u nr_running=2u nr_stopped=3u nr_uninterruptible=4u nr_io_wait=5u"),
    ("io.containerd.cgroups.v2.Metrics",
        "pids=1<io.containerd.cgroups.v2.PidsStat> cpu=2<io.containerd.cgroups.v2.CPUStat> \
         memory=4<io.containerd.cgroups.v2.MemoryStat> rdma=5<io.containerd.cgroups.v2.RdmaStat> \
         io=6<io.containerd.cgroups.v2.IOStat> *hugetlb=7<io.containerd.cgroups.v2.HugeTlbStat> \
         memory_events=8<io.containerd.cgroups.v2.MemoryEvents> *network=9<io.containerd.cgroups.v2.NetworkStat>"),
    ("io.containerd.cgroups.v2.PSIData",
        "avg10=1d avg60=2d avg300=3d total=4u"),
    ("io.containerd.cgroups.v2.PSIStats",
        "some=1<io.containerd.cgroups.v2.PSIData> full=2<io.containerd.cgroups.v2.PSIData>"),
    ("io.containerd.cgroups.v2.PidsStat",
        "current=1u limit=2u"),
    ("io.containerd.cgroups.v2.CPUStat",
        "usage_usec=1u user_usec=2u system_usec=3u nr_periods=4u nr_throttled=5u throttled_usec=6u \
         psi=7<io.containerd.cgroups.v2.PSIStats> nr_bursts=8u burst_usec=9u"),
    ("io.containerd.cgroups.v2.MemoryStat",
        "anon=1u file=2u kernel_stack=3u slab=4u sock=5u shmem=6u file_mapped=7u file_dirty=8u file_writeback=9u \
         anon_thp=10u inactive_anon=11u active_anon=12u inactive_file=13u active_file=14u unevictable=15u \
         slab_reclaimable=16u slab_unreclaimable=17u pgfault=18u pgmajfault=19u workingset_refault=20u \
         workingset_activate=21u workingset_nodereclaim=22u pgrefill=23u pgscan=24u pgsteal=25u pgactivate=26u \
         pgdeactivate=27u pglazyfree=28u pglazyfreed=29u thp_fault_alloc=30u thp_collapse_alloc=31u usage=32u \
         usage_limit=33u swap_usage=34u swap_limit=35u max_usage=36u swap_max_usage=37u \
         psi=38<io.containerd.cgroups.v2.PSIStats> workingset_refault_anon=39u workingset_refault_file=40u \
         workingset_activate_anon=41u workingset_activate_file=42u"),
    ("io.containerd.cgroups.v2.MemoryEvents",
        "low=1u high=2u max=3u oom=4u oom_kill=5u oom_group_kill=6u"),
    ("io.containerd.cgroups.v2.RdmaStat",
        "*current=1<io.containerd.cgroups.v2.RdmaEntry> *limit=2<io.containerd.cgroups.v2.RdmaEntry>"),
    ("io.containerd.cgroups.v2.RdmaEntry",
        "device=1 hca_handles=2u hca_objects=3u"),
    ("io.containerd.cgroups.v2.IOStat",
        "*usage=1<io.containerd.cgroups.v2.IOEntry> psi=2<io.containerd.cgroups.v2.PSIStats>"),
    ("io.containerd.cgroups.v2.IOEntry",
        "major=1u minor=2u rbytes=3u wbytes=4u rios=5u wios=6u"),
    ("io.containerd.cgroups.v2.HugeTlbStat",
        "current=1u max=2u pagesize=3 failcnt=4u"),
    ("io.containerd.cgroups.v2.NetworkStat",
        "name=1 rx_bytes=2u rx_packets=3u rx_errors=4u rx_dropped=5u tx_bytes=6u tx_packets=7u tx_errors=8u \
         tx_dropped=9u"),
];
