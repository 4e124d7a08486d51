//! What happens to lines, hosts, clocks and registrations.

use std::sync::PoisonError;
use std::time::Duration;

use sortie::agent::Wish;
use sortie::journal::Journal;
use sortie_control::dispatch::Mode;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{AGENTS, Host, LONGEST_STALL, STORM, World};
use crate::chaos::Process;
use crate::disk::{Disk, DiskStore};
use crate::network::Direction;

impl World {
    /// What happens to lines, hosts and clocks while it storms.
    pub(super) async fn weather(self, hosts: Vec<Host>) {
        let until = Instant::now() + STORM;
        let mut copies = JoinSet::new();
        while Instant::now() < until {
            sleep(self.chaos.duration(Duration::from_secs(60))).await;
            let Some(host) = hosts.get(usize::try_from(self.chaos.below(AGENTS as u64)).unwrap_or(0)) else {
                continue;
            };
            let time = self.chaos.duration(LONGEST_STALL);
            match self.chaos.below(11) {
                0 | 1 => host.cable.cut(),
                2 => host.cable.stall(Direction::Up, time),
                3 => host.cable.stall(Direction::Down, time),
                4 => {
                    host.cable.stall(Direction::Up, time);
                    host.cable.stall(Direction::Down, time);
                }
                5 => {
                    let number = usize::try_from(self.chaos.below(AGENTS as u64 + 1)).unwrap_or(0);
                    let processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if let Some(process) = processes.get(&number) {
                        process.kill();
                    }
                }
                6 => {
                    let hour = 3_600_000 * [1, -1][usize::try_from(self.chaos.below(2)).unwrap_or(0)];
                    self.shared.set_clock(hour);
                }
                7 => self.pause_or_resume(&host.name).await,
                // Until it is calm, nobody is let in again.
                8 if self.chaos.below(4) == 0 => self.revoke(&host.name).await,
                9 if self.chaos.below(4) == 0 => {
                    copies.spawn(self.clone().copy_of(host.clone(), time));
                }
                _ => {}
            }
        }
        copies.shutdown().await;
    }

    /// Somebody starts an agent a second time, from a copy of its directory without the journal.
    pub(super) async fn copy_of(self, host: Host, time: Duration) {
        self.oracle.copied();
        let process = Process::new(&self.chaos);
        let disk = Disk::default();
        let store = DiskStore { disk: disk.clone(), chaos: self.chaos.clone(), process: process.clone() };
        let (_wish, wishes) = watch::channel(Wish::Run);
        let agent = self.agent_of(&host, &process, Journal::new(store, disk.read(false)));
        tokio::select! {
            biased;
            () = process.killed() => {}
            _ = agent.run(wishes) => {}
            () = sleep(time) => {}
        }
    }

    pub(super) async fn revoke(&self, agent: &str) {
        if let Some(engine) = self.up() {
            let revoked = engine.revoke(agent.to_owned(), "it is not trusted any more".to_owned());
            let _ = timeout(Duration::from_secs(10), revoked).await;
        }
    }

    pub(super) async fn pause_or_resume(&self, agent: &str) {
        let modes = [Mode::Active, Mode::Active, Mode::Paused, Mode::Draining];
        let mode = modes[usize::try_from(self.chaos.below(modes.len() as u64)).unwrap_or(0)];
        if let Some(engine) = self.up() {
            let _ = timeout(Duration::from_secs(10), engine.set_mode(agent.to_owned(), mode)).await;
        }
    }
}
